"""Other packages' classes under their own signatures: swap an import line and keep your code."""
