"""Pictures of cases: a page of many, slices with outlines, and surfaces.

Slices and surfaces come as Figures. Commands and rooms above call it. Orientation is the radiologist's: axial planes from below,
the patient's right on the left of the picture; all to scale in mm.
"""
