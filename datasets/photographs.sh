#!/bin/sh
# Collects the well-lit training photographs of Dawn from Debian's wallpaper packages: sh datasets/photographs.sh
# Needs apt-get and dpkg (Debian 12). Licences: CC BY 4.0, CC BY-SA 4.0, CC0, GPL-2+ and LGPL-2.1+; see
# usr/share/doc/*/copyright of each package. None of them is part of llie.
set -eu
here=$(cd "$(dirname "$0")" && pwd)/photographs
mkdir -p "$here/packages" "$here/train" "$here/held_out"
cd "$here/packages"
for package in lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 lxqt-themes mate-backgrounds plasma-workspace-wallpapers; do
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
take held_out <<'LIST'
backgrounds/Wine_by_Jakkub_Mede.jpg
backgrounds/picosdeeuropa_by_Aitzol_Berasategi.jpg
lxqt/wallpapers/flowers.png
backgrounds/mate/nature/LadyBird.jpg
LIST
echo "$here: $(ls "$here/train" | wc -l) photographs to train with, $(ls "$here/held_out" | wc -l) held out"
