/* cloud_key: `pdd cloud key`, which makes a key and its line of the key file (cloud/api/keys.h). */
#ifndef PDD_CLI_CLOUD_KEY_H
#define PDD_CLI_CLOUD_KEY_H

/* argv[0] is "key"; returns the exit status. */
int cloud_key(int argc, char **argv);

#endif
