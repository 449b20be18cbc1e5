/* train/version.c -- `trivet --version`: the version, the build's options, the libraries' versions. */
#include "base/version.h"
#include "kernels/kernels.h"
#include "mesh/comm.h"
#include "train/commands.h"
#include <jansson.h>
#include <stdio.h>
#include <xxhash.h>

int tv_command_version(void)
{
    char mpi[128];
    tv_comm_mpi_version(mpi, sizeof(mpi));
    printf("trivet %s\n", tv_version());
    printf("build: %s\n", tv_build_options());
    printf("mpi: %s\n", mpi);
    printf("jansson %s, xxHash %d.%d.%d\n", JANSSON_VERSION, XXH_VERSION_MAJOR, XXH_VERSION_MINOR,
           XXH_VERSION_RELEASE);
    printf("matrix products: %s\n", tv_product_name());
    return 0;
}
