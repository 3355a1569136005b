module netprobe

go 1.16
