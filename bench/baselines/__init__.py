"""What rtk is measured beside: plain loops, other frameworks."""
