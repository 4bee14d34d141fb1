"""FineTune manifests on this machine: reading, changing, checking, and uploading local files."""
