"""OTSurv: patches of a bag are pooled by partial transport to prototypes."""
