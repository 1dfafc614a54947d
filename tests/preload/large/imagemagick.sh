#!/bin/bash
# imagemagick - ImageMagick: draws, resizes, blurs, distorts and converts pictures, with
# threads, with limits that put pixels into files; pixels are the same.
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$ROOT/tests/preload/lib.sh"

pixels() {
    AS=identify under identify -format '%f %m %wx%h %#\n' "$@"
}
make=(convert -size 600x400 -seed 42)
under "${make[@]}" plasma:red-blue -depth 8 plasma.png
under "${make[@]}" gradient:white-black -fill green -draw 'circle 300,200 300,90' \
    -stroke blue -strokewidth 5 -draw 'bezier 10,10 200,350 400,30 590,390' draw.png
under convert plasma.png -resize 150% -unsharp 0x1 -rotate 17 -blur 0x3 one.png
under convert plasma.png draw.png -compose multiply -composite \
    -distort Arc 60 -colorspace Lab -separate +append two.png
under convert draw.png -paint 3 -charcoal 2 -normalize -edge 1 three.tiff
under convert plasma.png \( +clone -flip \) \( draw.png -resize 600x400! \) \
    -loop 0 -delay 10 +dither -colors 64 four.gif
under convert plasma.png -quality 85 five.jpg
under convert five.jpg -define webp:lossless=true six.png
under montage plasma.png draw.png one.png -tile 3x -geometry 100x100+2+2 seven.png
under convert plasma.png -fft -delete 1 -auto-level eight.png 2>/dev/null ||
    echo 'no Fourier transform here'
pixels plasma.png draw.png one.png two.png three.tiff 'four.gif[0-2]' five.jpg \
    six.png seven.png
AS=limits under convert -limit memory 2MiB -limit map 2MiB -limit thread 3 \
    plasma.png -resize 300% -implode 0.3 -resize 30% nine.png
pixels nine.png
AS=compare under compare -metric RMSE plasma.png six.png null: || true
grep -o '^[0-9.]* ([0-9.e-]*)' "$REPORTS/compare"
# A damaged picture is an error and no more.
head -c 5000 plasma.png >cut.png
AS=damaged under convert cut.png cut.jpg && echo 'read' || echo 'not read'
