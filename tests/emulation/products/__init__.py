"""One product of a warp on tensor cores, its registers given and taken: what test_warp_products.py runs."""
