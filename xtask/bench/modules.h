/* Loading the kernel modules that the initramfs lists, as the agent does: the same for every /init of the benchmarks. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void load_modules(void)
{
	char line[256];
	FILE *list = fopen("/banger/modules", "re");

	/* Each line is `first PATH` or `second PATH`, in the order of dependencies. */
	while (list && fgets(line, sizeof line, list)) {
		char *path = strchr(line, ' ');
		if (line[0] == '#' || !path)
			continue;
		path++;
		path[strcspn(path, "\n")] = 0;
		int module = open(path, O_RDONLY | O_CLOEXEC);
		if (module < 0 || syscall(SYS_finit_module, module, "", 0) != 0)
			perror(path);
		close(module);
	}
}
