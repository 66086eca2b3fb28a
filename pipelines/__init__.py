"""The engine: what a pipeline computes, how it is trained, used and measured."""
