/*
 * http_ca: where this system keeps the certificates of the authorities it trusts. libcurl knows one
 * place, that of the system it was built for; a program that is linked statically runs on others.
 * Any thread.
 */
#ifndef PDD_NET_HTTP_CA_H
#define PDD_NET_HTTP_CA_H

/* The first of the files that can be read, `first` (or NULL) before the list, which ends with NULL;
 * NULL when none can. */
const char *http_ca_find(const char *first, const char *const *others);
/* NULL where libcurl's own place is good, or no place is: it says then what is missing. */
const char *http_ca_file(void);

#endif
