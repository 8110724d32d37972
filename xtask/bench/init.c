/* The baseline's /init: loads the same modules as the agent, prints one line, powers off. Nothing else. */
#include "modules.h"

#include <sys/reboot.h>

int main(void)
{
	load_modules();
	if (write(1, "bench-ready\n", 12) != 12)
		return 1;
	reboot(RB_POWER_OFF);
	return 1;
}
