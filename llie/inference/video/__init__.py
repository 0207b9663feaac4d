"""Enhances videos frame by frame in constant memory; sound, subtitles, times and tags are copied.

    picture            packet -> frame -> RGB -> network -> RGB -> frame -> packet
    sound, subtitles   packet ------------------------------------------> packet

`enhance` is the loop over frames. `reading`, `section`, `streams` and `writing` read and write files; `colour` and
`encoders` convert and encode frames. The package can be imported without PyAV (the extra `[video]`), but
`enhance_video` needs it.
"""

from llie.inference.video.encoding import Encoding
from llie.inference.video.enhance import enhance_video
from llie.inference.video.result import VideoResult

__all__ = ["Encoding", "VideoResult", "enhance_video"]
