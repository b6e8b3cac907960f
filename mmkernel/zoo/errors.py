"""What can go wrong between a name and its weights."""


class CheckpointError(RuntimeError):
    """A file that is no checkpoint, is damaged, or belongs to another architecture."""


class DownloadError(RuntimeError):
    """Weights that could not be fetched; says what to do by hand."""


class MirrorError(DownloadError):
    """One URL that will not give the file, however often it is asked."""


class HashMismatchError(DownloadError, CheckpointError):
    """A file with other bytes than those published, those that its name tells, or those of its first use."""


class DiskFullError(DownloadError):
    """No room for the file; what has arrived is kept, and the download resumes."""
