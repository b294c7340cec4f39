/*
 * core: what the answers of a device share: the cloud's client, the engine thread, measured speeds;
 * and devices on a loop of the caller's, several at once, none of which blocks.
 *
 * Life: device_core_open, device_open_on for each answer that may be given at the same time, then
 * device_start ... done, again and again; device_close_on, device_core_close. device_open
 * (device.h) is a core with a loop thread and one device. Threads: the loop only.
 */
#ifndef PDD_DEVICE_CORE_H
#define PDD_DEVICE_CORE_H

#include "device/device.h"
#include "device/local.h"
#include "net/loop.h"

struct device_core;

/* The options are copied. Takes the engine on success. */
int device_core_open(struct loop *l, const struct device_options *options,
                     struct device_core **ret_core, struct err *e);
void device_core_close(struct device_core *c); /* its devices are closed; NULL is fine */
void device_core_release(
    struct device_core *c); /* the same, but the engine is the caller's again */
/* The base URL of the cloud, as it is asked (net/http_url.h); NULL: there is none. */
const char *device_core_url(const struct device_core *core);
struct local *device_core_local(struct device_core *c); /* NULL without an engine */

/* Whether an idle device reads on (device_options.idle_fill), and how far of how many tokens; and
 * stop that, within a step. A question stops it, too. */
bool device_core_fills(struct device_core *c, uint32_t *ret_done, uint32_t *ret_total);
void device_core_fill_stop(struct device_core *c);

int device_open_on(struct device_core *c, struct device **ret_device, struct err *e);
void device_close_on(struct device *d); /* NULL is fine; `done` is not called */
/* Whether device_start would not wait for a step of a cancelled answer. */
bool device_rests(struct device *d);
/* `q` and what it points to must stay until `done`, which is called once, later or from inside
 * device_stop, unless starting fails. code: as device_ask returns it. The report's pointers hold
 * until the device's next question; `done` may start it. */
int device_start(struct device *d, const struct device_question *q,
                 void (*done)(void *arg, int code, const struct device_report *r,
                              const struct err *why),
                 void *arg, struct err *e);
void device_stop(struct device *d); /* the answer, if any, ends as cancelled */

#endif
