"""What can go wrong between a name and its weights."""


class DownloadError(RuntimeError):
    """Weights that could not be fetched; says what to do by hand."""


class MirrorError(DownloadError):
    """One URL that will not give the file, however often it is asked."""


class DiskFullError(DownloadError):
    """No room for the file; what has arrived is kept, and the download resumes."""
