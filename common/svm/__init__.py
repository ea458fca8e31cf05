"""The mathematics of the SVM: feature map, objective, solver."""
