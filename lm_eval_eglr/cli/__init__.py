"""The ``eglr`` command."""
