"""Show a trained pipeline in the browser."""
