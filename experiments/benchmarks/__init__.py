"""Time to a given error: jaxsns beside other optimal-transport libraries."""
