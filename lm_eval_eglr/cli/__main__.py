"""``python -m lm_eval_eglr.cli``: the ``eglr`` command."""

from lm_eval_eglr.cli.app import main

if __name__ == "__main__":
    main()
