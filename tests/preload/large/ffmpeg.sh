#!/bin/bash
# ffmpeg - ffmpeg: pictures and sound that it makes itself, through filters and
# several encoders and their threads, decoded again; frames are the same.
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$ROOT/tests/preload/lib.sh"

run() {
    under ffmpeg -nostdin -hide_banner -loglevel warning -bitexact "$@"
}
video=(-f lavfi -i testsrc2=size=320x240:rate=25:duration=4)
sound=(-f lavfi -i "sine=frequency=440:beep_factor=3:duration=4")
exact=(-flags +bitexact -fflags +bitexact -sws_flags +bitexact)
frames() {
    run -i "$1" "${exact[@]}" -f framemd5 - | grep -v '^#' | sha256sum
}
run "${video[@]}" "${sound[@]}" "${exact[@]}" -c:v mpeg4 -threads 3 -q:v 5 \
    -c:a flac one.mkv
run "${video[@]}" "${exact[@]}" -c:v libx264 -preset veryfast -threads 3 \
    -x264-params sync-lookahead=0:sliced-threads=1 two.mp4
run "${video[@]}" "${exact[@]}" -c:v ffv1 -level 3 -slices 4 -threads 4 three.avi
run "${sound[@]}" "${exact[@]}" -c:a libvorbis four.ogg
for file in one.mkv two.mp4 three.avi four.ogg; do
    frames "$file"
done
run -i one.mkv "${exact[@]}" -filter_complex \
    '[0:v]split=2[a][b];[a]scale=160:120,hflip,gblur=sigma=2[c];[b][c]overlay=20:20,
    rotate=0.2,fps=12[v];[0:a]aecho=0.8:0.9:40:0.3,aresample=22050[s]' \
    -map '[v]' -map '[s]' -c:v rawvideo -pix_fmt yuv420p -f nut five.nut
frames five.nut
run -i three.avi "${exact[@]}" -vf 'select=not(mod(n\,10)),thumbnail=2,scale=64:48' \
    -vsync 0 picture%d.png
sha256sum ./*.png
AS=ffprobe under ffprobe -loglevel error -show_entries \
    stream=codec_name,width,height,nb_read_frames -count_frames one.mkv
# What is no film is an error and no more.
head -c 20000 two.mp4 >cut.mp4
AS=damaged run -i cut.mp4 -f null - && echo 'read' || echo 'not read'
