#include "topologies.h"
