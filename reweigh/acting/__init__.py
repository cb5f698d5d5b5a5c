"""Acting: policies, the environments they act in, collection and evaluation."""
