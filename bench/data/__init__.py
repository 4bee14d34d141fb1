"""The data room beside pandas as the old tool used it, the raw tokenizers, and a perfect packer."""
