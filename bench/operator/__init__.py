"""The operator beside a bare script of the same objects, on a real control plane with kwok."""
