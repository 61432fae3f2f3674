"""Video as it arrives: files, folders that grow, cameras and network streams, classified window by window."""

from __future__ import annotations

from robustvid.live.alarms import Alarm
from robustvid.live.watch import Seen, Summary, Watch, watch

__all__ = ["Alarm", "Seen", "Summary", "Watch", "watch"]
