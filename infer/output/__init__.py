"""Outputs for answers: tables, files, folders of sorted images, HTML pages."""
