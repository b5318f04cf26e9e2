"""Problems whose cost matrix is never stored."""
