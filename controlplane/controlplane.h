#ifndef TH_CONTROLPLANE_H
#define TH_CONTROLPLANE_H
/* `thimbled controlplane`: the only header of this room that vm/ may include besides client/. */
int th_controlplane_main(int argc, char **argv);
#endif
