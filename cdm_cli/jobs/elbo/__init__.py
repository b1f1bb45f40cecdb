"""`cdm eval elbo`: bits per dimension of real images."""
