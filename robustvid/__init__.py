"""How much may each frame, and the whole clip, be disturbed before a video classifier fails?"""

__version__ = "0.1.0"
