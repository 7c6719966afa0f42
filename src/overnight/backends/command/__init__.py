"""Any program that the operator configured: prompt on stdin, stdout is the answer."""
