"""What a run would need, counted without data, GPU or training: the dry run.

``dry_run`` prints the plan of a config. ``rehearsal`` builds it on the meta device, ``counted_step`` plays a step of one rank
there, ``live_bytes`` and ``head_bytes`` count what it holds. ``fitting`` says what to change where that is too much, and
``problems`` what else.
"""
