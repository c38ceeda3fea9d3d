# What the language knows, in one stack.
stack = "language"

variable "regions" {
  type        = list(object({ name = string, size = optional(number, 2) }))
  default     = [{ name = "eu" }, { name = "us", size = 3 }]
  description = "Where it runs."
  validation {
    condition     = length(var.regions) > 0
    error_message = "there must be a region"
  }
}

variable "ports" {
  type    = map(number)
  default = { http = 8080, admin = 9000 }
}

locals {
  by_name = { for region in var.regions : region.name => region }
  sizes   = var.regions[*].size
  grouped = { for region in var.regions : (region.size > 2 ? "big" : "small") => region.name... }
  text    = <<-EOT
    regions:
    %{~for region in var.regions}
      - ${region.name}
    %{~endfor}
  EOT
}

environment "production" {
  variables = { ports = { http = 80 } }
}

module "cache" {
  source   = "./module"
  for_each = local.by_name
  image    = "registry.example.com/cache:7"
  size     = each.value.size
}

image "tool" {
  from = "scratch"
  file "/a" { content = "1" }
  link "/b" { to = "/a" }
  file "/c" { content = "costs $${5} and 100%" }
  command = ["/a"]
}

service "web" {
  for_each    = local.by_name
  image       = image.tool
  instances   = each.value.size
  connects_to = [module.cache[each.key].service]
  env = {
    REGION = each.key
    SIZES  = join(",", local.sizes)
    BIG    = join(",", local.grouped.big)
    CACHE  = module.cache[each.key].address
    PEERS  = join(" ", [for name, peer in local.by_name : name if name != each.key])
    PLACE  = basalt.environment
  }
  config "/etc/regions" { content = local.text }
  dynamic "port" {
    for_each = var.ports
    labels   = [port.key]
    content {
      container = port.value
    }
  }
  route {
    host = "${each.key}.example.com"
  }
}

job "check" {
  image       = image.tool
  connects_to = [service.web["eu"], service.web["us"]]
  command     = ["/a", "--all"]
}

output "caches" { value = [for cache in module.cache : cache.address] }
