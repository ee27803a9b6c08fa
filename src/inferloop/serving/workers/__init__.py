"""Several server processes behind the same ports: started, watched, restarted, counted as one."""
