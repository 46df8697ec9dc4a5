"""The stages. Each module holds one class, named like its module; none imports another."""
