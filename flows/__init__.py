"""The path as Prefect flows, and the command line. START READING in flows/pipeline.py."""

from memr1.environment import set_environment_defaults

set_environment_defaults()  # here, because it must happen before any flow's libraries are imported
