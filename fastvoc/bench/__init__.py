"""What `fastvoc bench` does: times, the limits of the machine, errors, and the page that shows them."""
