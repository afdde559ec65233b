"""The one page that reviewers read, put together from tables and figures alone."""
