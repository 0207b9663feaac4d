#!/bin/sh
# Collects the well-lit training photographs of Dawn from Debian's packages: sh datasets/photographs.sh
# Needs apt-get, dpkg and python3 (Debian 12). Licences: CC0 and public domain, CC BY, CC BY-SA, GPL, LGPL, Apache-2.0 and
# BSD; see usr/share/doc/*/copyright of each package. None of them is part of llie.
set -eu
here=$(cd "$(dirname "$0")" && pwd)/photographs
mkdir -p "$here/packages" "$here/train" "$here/held_out"
cd "$here/packages"
for package in lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 lxqt-themes mate-backgrounds plasma-workspace-wallpapers \
    gcompris-qt-data opencv-doc; do
    ls "${package}"_*.deb >/dev/null 2>&1 || apt-get download "$package"
    dpkg -x "${package}"_*.deb files
done

# Two packages may have a photograph with the same name, so the folder three levels up is put before it.
take() {
    to=$1
    while read -r path; do
        path=files/usr/share/$path
        prefix=$(basename "$(dirname "$(dirname "$(dirname "$path")")")")
        cp "$path" "$here/$to/${prefix}_$(basename "$path")"
    done
}
take train <<'LIST'
backgrounds/Bridge_by_Sander_Klootwijk.jpg
backgrounds/Dragonfly_by_Bolly.jpg
backgrounds/Picture_0B_by_freespace.jpg
backgrounds/Picture_1A_by_freespace.jpg
backgrounds/aitzgorri_by_Aitzol_Berasategi.jpg
backgrounds/free_by_Peter_Nerlich.jpg
backgrounds/friends_by_Aitzol_Berasategi.jpg
backgrounds/greentock_by_Peter_Nerlich.jpg
backgrounds/life_by_Aitzol_Berasategi.jpg
backgrounds/seeding_by_Clements_Engelhardt.jpg
backgrounds/Kleiber_by_Lukas_Baubkus.jpg
lxqt/wallpapers/Butterfly-Kenneth-Wimer.jpg
lxqt/wallpapers/appleflower.png
lxqt/wallpapers/butterfly.png
lxqt/wallpapers/cloud.png
lxqt/wallpapers/drop.png
lxqt/wallpapers/this-is-not-windows.jpg
backgrounds/mate/nature/Aqua.jpg
backgrounds/mate/nature/Blinds.jpg
backgrounds/mate/nature/Dune.jpg
backgrounds/mate/nature/FreshFlower.jpg
backgrounds/mate/nature/Garden.jpg
backgrounds/mate/nature/GreenMeadow.jpg
backgrounds/mate/nature/RainDrops.jpg
backgrounds/mate/nature/TwoWings.jpg
backgrounds/mate/nature/Wood.jpg
backgrounds/mate/nature/YellowFlower.jpg
wallpapers/BytheWater/contents/images/2560x1600.jpg
wallpapers/ColorfulCups/contents/images/2560x1600.jpg
wallpapers/FallenLeaf/contents/images/2560x1600.jpg
wallpapers/Grey/contents/images/2560x1600.jpg
wallpapers/Kite/contents/images/2560x1600.jpg
wallpapers/OneStandsOut/contents/images/2560x1600.jpg
wallpapers/Volna/contents/images/5120x2880.jpg
LIST
while read -r name; do
    cp "$(find files/usr/share/doc/opencv-doc/examples -name "$name" | head -n 1)" "$here/train/opencv_$name"
done <<'LIST'
000.jpg
aloeL.jpg
baboon.jpg
board.jpg
building.jpg
chicky_512.png
fruits.jpg
graf1.png
rubberwhale1.png
scenetext01.jpg
scenetext04.jpg
scenetext05.jpg
scenetext06.jpg
scenetext_segmented_word01.jpg
scenetext_segmented_word02.jpg
scenetext_segmented_word04.jpg
squirrel_cls.jpg
LIST
# GCompris keeps its photographs in Qt's resource files: each is stored whole, behind its length.
python3 - files/usr/share/gcompris-qt/rcc "$here/train" <<'PYTHON'
import re
import sys
from pathlib import Path

packed, train = map(Path, sys.argv[1:])
DARK_OR_SMALL = {"erase": {28}, "explore_monuments": {16, 31, 32, 33, 34, 46}}
for name in ("erase", "explore_farm_animals", "explore_monuments", "explore_world_animals"):
    data = (packed / f"{name}.rcc").read_bytes()
    index = 0
    for start in (found.start() for found in re.finditer(rb"RIFF....WEBP", data, re.DOTALL)):
        size = int.from_bytes(data[start - 4 : start], "big")
        if not 15_000 < size <= len(data) - start:
            continue
        if index not in DARK_OR_SMALL.get(name, ()):
            (train / f"{name}_{index:02d}.webp").write_bytes(data[start : start + size])
        index += 1
PYTHON
take held_out <<'LIST'
backgrounds/Wine_by_Jakkub_Mede.jpg
backgrounds/picosdeeuropa_by_Aitzol_Berasategi.jpg
lxqt/wallpapers/flowers.png
backgrounds/mate/nature/LadyBird.jpg
LIST
echo "$here: $(ls "$here/train" | wc -l) photographs to train with, $(ls "$here/held_out" | wc -l) held out"
