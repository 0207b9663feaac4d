"""Videos: frame by frame in constant memory, with everything else in the file kept.

    packet -> frame -> RGB -> network -> RGB -> frame -> packet      of the picture, one at a time
    packet -------------------------------------------> packet      of sound and subtitles, as they are

`enhance` is the loop; `reading`, `section`, `streams` and `writing` are about files, `colour` and `encoders` about
frames. The package can be imported without PyAV (the extra `[video]`); a call asks for it.
"""

from llie.inference.video.encoding import Encoding
from llie.inference.video.enhance import enhance_video
from llie.inference.video.result import VideoResult

__all__ = ["Encoding", "VideoResult", "enhance_video"]
