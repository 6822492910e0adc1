"""Measurements that anyone can run again; nothing in the pipeline depends on them."""
