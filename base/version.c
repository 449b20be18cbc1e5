/* base/version.c -- the version and the build's options, as CMake knew them. */
#include "base/version.h"

const char *tv_version(void)
{
    return TV_VERSION_STRING;
}

const char *tv_build_options(void)
{
    return TV_BUILD_OPTIONS;
}
