"""How far joints of infants are turned who lie on the stomach, sit and stand.

Ranges in degrees from which angles are drawn uniformly; angles that no table names are 0. They
are set by eye.
"""

Ranges = dict[str, tuple[float, float]]

_STOMACH: Ranges = {
    "yaw": (-18, 18),
    "roll": (172, 188),
    "waist_bend": (-8, 8),
    "back_bend": (-6, 6),
    "neck_flexion": (-25, -5),
    "neck_bend": (-10, 10),
}
_STOMACH_ARM: Ranges = {
    "shoulder_flexion": (-8, 5),
    "shoulder_abduction": (30, 150),
    "shoulder_rotation": (-90, -78),
    "elbow_flexion": (30, 120),
}
_STOMACH_LEG: Ranges = {
    "hip_flexion": (-5, 25),
    "hip_abduction": (10, 48),
    "hip_rotation": (-60, -25),
    "knee_flexion": (20, 110),
    "ankle_flexion": (10, 50),
}
_SITTING: Ranges = {
    "pitch": (76, 92),
    "roll": (-6, 6),
    "waist_flexion": (5, 18),
    "waist_bend": (-8, 8),
    "back_flexion": (5, 20),
    "back_bend": (-6, 6),
    "neck_flexion": (-30, 0),
    "neck_bend": (-12, 12),
    "neck_twist": (-35, 35),
}
_SITTING_ARM: Ranges = {
    "shoulder_flexion": (5, 50),
    "shoulder_abduction": (8, 35),
    "shoulder_rotation": (0, 40),
    "elbow_flexion": (20, 75),
}
_SITTING_LEG: Ranges = {
    "hip_flexion": (78, 95),
    "hip_abduction": (18, 45),
    "hip_rotation": (-55, -20),
    "knee_flexion": (10, 85),
    "ankle_flexion": (0, 35),
}
_STANDING: Ranges = {
    "pitch": (88, 100),
    "roll": (-5, 5),
    "waist_flexion": (0, 8),
    "waist_bend": (-6, 6),
    "back_flexion": (0, 8),
    "neck_flexion": (-25, 10),
    "neck_bend": (-10, 10),
    "neck_twist": (-45, 45),
}
_STANDING_ARM: Ranges = {
    "shoulder_flexion": (55, 95),
    "shoulder_abduction": (5, 25),
    "elbow_flexion": (25, 60),
}
_STANDING_LEG: Ranges = {
    "hip_flexion": (2, 22),
    "hip_abduction": (4, 16),
    "hip_rotation": (-25, 0),
    "knee_flexion": (4, 28),
    "ankle_flexion": (-12, 5),
}
RANGES_DEG = {
    "stomach": (_STOMACH, _STOMACH_ARM, _STOMACH_LEG),
    "sitting": (_SITTING, _SITTING_ARM, _SITTING_LEG),
    "standing": (_STANDING, _STANDING_ARM, _STANDING_LEG),
}
"""Of trunk, arm and leg. Who lies on the back moves as `jaxbed.simulate.infant` says."""
