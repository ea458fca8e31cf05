"""Whether evidence maps say anything: measured on test images whose lesions were outlined."""
