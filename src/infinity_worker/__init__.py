"""A RunPod Serverless worker in front of an Infinity embedding server."""
