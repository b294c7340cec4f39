/*
 * service: reports the state of the process to the service manager that started it (systemd's
 * sd_notify(3): one datagram to the socket that NOTIFY_SOCKET names). Without such a socket it does
 * nothing.
 */
#ifndef PDD_CLI_SERVICE_H
#define PDD_CLI_SERVICE_H

/* "READY=1", "RELOADING=1", "STOPPING=1". Fails silently: the manager has its own time-outs. */
void service_notify(const char *state);

#endif
