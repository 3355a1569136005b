#ifndef TH_API_RELAY_H
#define TH_API_RELAY_H
struct th_relay;
struct th_relay_stream;
#endif
