package disclosure

// ParseFields checks the shapes of fields.
func ParseFields(list []string) ([]Field, error) {
	fields := make([]Field, len(list))
	for i, s := range list {
		field, err := ParseField(s)
		if err != nil {
			return nil, err
		}
		fields[i] = field
	}
	return fields, nil
}

// ParseParty checks the shapes of an organisation and its hat.
func ParseParty(oin, domain string) (Party, error) {
	o, err := ParseOIN(oin)
	if err != nil {
		return Party{}, err
	}
	d, err := ParseDomain(domain)
	if err != nil {
		return Party{}, err
	}
	return Party{OIN: o, Domain: d}, nil
}
